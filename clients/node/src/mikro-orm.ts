import { type ContextOptions, type MakeContext, type Middleware, middleware } from "./context.js";
import { entry } from "./entry.js";

export * from "./common.js";
export { Change } from "./mikro-orm-change.js";

const DRIVER = "@mikro-orm/postgresql";
// MikroORM 6 writes through knex.
const { instrumentOnce, bemiContext, mergeBemiContext } = entry([DRIVER], [DRIVER, "@mikro-orm/knex", "knex"], []);
export { bemiContext, mergeBemiContext };

/** What is given to MikroORM's schema generator. */
export interface SchemaGeneratorOptions {
  ignoreSchema?: string[] | undefined;
}

/**
 * What MikroORM's schema tools have to be told so that they leave bemi's tables and triggers alone, to be spread into its
 * configuration: without it, they drop them. `schemaGenerator` is what else the generator is told; another `schemaGenerator`
 * behind it would replace this one. `ignoreTriggers` is known from 7.1.3 on; version 6 does not look at triggers.
 */
export const bemiMikroOrmOptions = <Options extends SchemaGeneratorOptions = {}>(
  schemaGenerator?: Options,
): { schemaGenerator: Options & { ignoreSchema: string[]; ignoreTriggers: true } } => ({
  schemaGenerator: {
    ...(schemaGenerator as Options),
    ignoreSchema: [...(schemaGenerator?.ignoreSchema ?? []), "bemi"],
    ignoreTriggers: true,
  },
});

/**
 * A middleware for Express, and what builds on it, under which all that handles a request has the context that `fn` makes
 * of it. What MikroORM writes then carries it.
 */
export const setContext = <Req = any>(
  fn: MakeContext<Req>,
  options?: ContextOptions,
): Middleware<Req> => {
  instrumentOnce();
  return middleware(fn, options);
};
