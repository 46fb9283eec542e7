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
export { Change } from "./mikro-orm-change.js";
export { bemiDownSQL, bemiDownSQL as bemiDownSql, bemiUpSQL, bemiUpSQL as bemiUpSql } from "./migration.js";

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
