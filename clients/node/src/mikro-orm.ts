import { type ContextOptions, type MakeContext, type Middleware, middleware } from "./context.js";
import { instrumentPgOf } from "./find-pg.js";

export * from "./common.js";
export { Change } from "./mikro-orm-change.js";

/**
 * A middleware for Express, and what builds on it, under which all that handles a request has the context that `fn` makes
 * of it. What MikroORM writes then carries it.
 */
export const setContext = <Req = any>(
  fn: MakeContext<Req>,
  options?: ContextOptions,
): Middleware<Req> => {
  const driver = "@mikro-orm/postgresql";
  // MikroORM 6 writes through knex.
  instrumentPgOf([driver], [driver, "@mikro-orm/knex", "knex"], []);
  return middleware(fn, options);
};
