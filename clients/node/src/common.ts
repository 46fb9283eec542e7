export {
  type Context,
  type ContextOptions,
  currentBemiContext,
  type MakeContext,
  type Middleware,
} from "./context.js";
export { instrument } from "./instrument.js";
export {
  bemiDownSQL,
  bemiDownSQL as bemiDownSql,
  bemiTakeOverSQL,
  bemiTakeOverSQL as bemiTakeOverSql,
  bemiUpSQL,
  bemiUpSQL as bemiUpSql,
} from "./migration.js";
export { omitSecrets } from "./secrets.js";
