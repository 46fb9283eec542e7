import type { DataSource } from "typeorm";
import { type ContextOptions, type MakeContext, type Middleware, middleware } from "./context.js";
import { entry } from "./entry.js";
import { instrument } from "./instrument.js";
import type { Pg } from "./node-postgres.js";

export * from "./common.js";
export { Change } from "./typeorm-change.js";

const { instrumentOnce, bemiContext, mergeBemiContext } = entry(["typeorm"], []);
export { bemiContext, mergeBemiContext };

/**
 * A middleware for Express, and what builds on it, under which all that handles a request has the context that `fn` makes
 * of it. What TypeORM writes then carries it. With a data source, the driver of that one is used; without, the package
 * `pg` that is installed.
 */
export function setContext<Req = any>(dataSource: DataSource, fn: MakeContext<Req>, options?: ContextOptions): Middleware<Req>;
export function setContext<Req = any>(fn: MakeContext<Req>, options?: ContextOptions): Middleware<Req>;
export function setContext<Req>(
  first: DataSource | MakeContext<Req>,
  second?: MakeContext<Req> | ContextOptions,
  third?: ContextOptions,
): Middleware<Req> {
  if (typeof first === "function") {
    instrumentOnce();
    return middleware(first, second as ContextOptions | undefined);
  }
  const { postgres } = first.driver as { postgres?: Pg };
  if (!postgres) throw new Error(`bemi works with PostgreSQL only, and this data source is of type "${first.options.type}".`);
  instrument(postgres);
  return middleware(second as MakeContext<Req>, third);
}
