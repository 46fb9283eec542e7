import { AsyncLocalStorage } from "node:async_hooks";

/** The context of an asynchronous execution. */
export interface Scope {
  /** The context as JSON that the server accepts. */
  readonly json: string;
  /** Whether the text of each statement is added under the key `SQL`. */
  readonly currentQuery: boolean;
}

interface State {
  readonly storage: AsyncLocalStorage<Scope | undefined>;
  readonly warned: Set<string>;
}

// The package may be loaded twice, as ESM and as CommonJS, or in two copies: they share one context.
const key = Symbol.for("bemi.state.1");
const shared = globalThis as unknown as Record<symbol, State | undefined>;
const state: State = (shared[key] ??= { storage: new AsyncLocalStorage(), warned: new Set() });

export const storage = state.storage;

/** Warns once of each kind. */
export const warnOnce = (kind: string, message: string): void => {
  if (state.warned.has(kind)) return;
  state.warned.add(kind);
  process.emitWarning(message, { type: "BemiWarning", code: `BEMI_${kind}` });
};
