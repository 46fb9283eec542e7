import { type ContextOptions, type MakeContext, type Middleware, middleware } from "./context.js";
import { instrumentPgOf } from "./find-pg.js";

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

/**
 * A middleware for Express, and what builds on it, under which all that handles a request has the context that `fn` makes
 * of it. What node-postgres writes then carries it.
 */
export const setContext = <Req = any>(
  fn: MakeContext<Req>,
  options?: ContextOptions,
): Middleware<Req> => {
  instrumentPgOf([]);
  return middleware(fn, options);
};
