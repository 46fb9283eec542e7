import { OMITTED_KEY } from "./fit.js";
import { type Context, encode, isPromise } from "./json.js";
import { type IsSecret, secretsOf } from "./secrets.js";
import { currentScope, enter, runIn, type Scope } from "./state.js";

export type { Context } from "./json.js";

export interface ContextOptions {
  /** Adds the text of each statement under the key `SQL`. */
  currentQuery?: boolean;
  /**
   * What else than passwords, tokens and the like, as `omitSecrets` knows them by their names, is "[omitted]"; false: nothing
   * is.
   */
  omitSecrets?: readonly string[] | boolean;
}

const scope = (context: object | null | undefined, currentQuery: boolean, isSecret?: IsSecret): Scope | undefined =>
  context == null ? undefined : { json: encode(context, isSecret), currentQuery };

/**
 * Replaces the context: with `fn`, for the execution of `fn` alone; without, from here on in this asynchronous execution
 * (as AsyncLocalStorage.enterWith does). null is no context. The context is read now: what is changed in the object later
 * is not seen.
 * @throws TypeError if it is no object.
 */
export function bemiContext(context: object | null | undefined): void;
export function bemiContext<T>(context: object | null | undefined, fn: () => PromiseLike<T>): Promise<T>;
export function bemiContext<T>(context: object | null | undefined, fn: () => T): T;
export function bemiContext<T>(context: object | null | undefined, fn?: () => T): T | undefined {
  const next = scope(context, currentScope()?.currentQuery ?? false);
  if (fn) return runIn(next, () => begun(fn()));
  enter(next);
  return undefined;
}

/**
 * A query of a builder begins when it is awaited, which would be outside: that is done here. Its `then` is read once, and what
 * it throws is for whoever awaits.
 */
const begun = <T>(result: T): T => {
  if ((typeof result !== "object" && typeof result !== "function") || result === null) return result;
  let then: unknown;
  try {
    if (result instanceof Promise) return result;
    ({ then } = result as { then?: unknown });
  } catch {
    return result;
  }
  if (typeof then !== "function") return result;
  return new Promise((resolve, reject) => void then.call(result, resolve, reject)) as T;
};

/** Adds keys to the context; its own win. Otherwise as `bemiContext`. */
export function mergeBemiContext(partial: object): void;
export function mergeBemiContext<T>(partial: object, fn: () => PromiseLike<T>): Promise<T>;
export function mergeBemiContext<T>(partial: object, fn: () => T): T;
export function mergeBemiContext<T>(partial: object, fn?: () => T): T | undefined {
  const [current, added] = [currentBemiContext(), JSON.parse(encode(partial)) as Context];
  const merged: Context = { ...current, ...added };
  const omitted = { ...omittedOf(current), ...omittedOf(added) };
  if (Object.keys(omitted).length > 0) merged[OMITTED_KEY] = omitted;
  return fn ? bemiContext(merged, fn) : (bemiContext(merged), undefined);
}

const omittedOf = (context: Context | undefined): object => {
  const omitted = context?.[OMITTED_KEY];
  return typeof omitted === "object" && omitted !== null ? omitted : {};
};

/** A copy of the context of this asynchronous execution; undefined if there is none. */
export const currentBemiContext = (): Context | undefined => {
  const current = currentScope();
  return current && (JSON.parse(current.json) as Context);
};

/** A middleware as Express, and what builds on it, takes it. */
export type Middleware<Req> = (request: Req, response: unknown, next: (error?: unknown) => void) => void;

/** Makes the context of a request. null and undefined are none. */
export type MakeContext<Req> = (request: Req) => object | null | undefined | PromiseLike<object | null | undefined>;

/** A middleware under which all that handles a request has the context that `fn` makes of it, without secrets. */
export const middleware = <Req>(fn: MakeContext<Req>, options: ContextOptions = {}): Middleware<Req> => {
  const { omitSecrets = true } = options;
  const isSecret = omitSecrets === false ? undefined : secretsOf(omitSecrets === true ? [] : omitSecrets);
  return (request, _response, next) => {
    const refuse = (error: unknown): void => runIn(undefined, () => next(error));
    const accept = (context: object | null | undefined): void => {
      let made: Scope | undefined;
      try {
        made = scope(context, options.currentQuery ?? false, isSecret);
      } catch (error) {
        refuse(error);
        return;
      }
      runIn(made, () => next());
    };
    let context: ReturnType<MakeContext<Req>>;
    try {
      context = fn(request);
    } catch (error) {
      refuse(error);
      return;
    }
    if (isPromise(context)) void context.then(accept, refuse);
    else accept(context);
  };
};
