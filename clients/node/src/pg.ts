import { type ContextOptions, type MakeContext, type Middleware, middleware } from "./context.js";
import { entry } from "./entry.js";

export * from "./common.js";

const { instrumentOnce, bemiContext, mergeBemiContext } = entry([]);
export { bemiContext, mergeBemiContext };

/**
 * A middleware for Express, and what builds on it, under which all that handles a request has the context that `fn` makes
 * of it. What node-postgres writes then carries it.
 */
export const setContext = <Req = any>(
  fn: MakeContext<Req>,
  options?: ContextOptions,
): Middleware<Req> => {
  instrumentOnce();
  return middleware(fn, options);
};
