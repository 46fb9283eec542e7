export {
  bemiContext,
  type Context,
  type ContextOptions,
  currentBemiContext,
  type MakeContext,
  mergeBemiContext,
  type Middleware,
} from "./context.js";
export { instrument } from "./instrument.js";
export { bemiDownSQL, bemiUpSQL } from "./migration.js";
