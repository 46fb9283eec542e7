import { AsyncLocalStorage } from "node:async_hooks";
import { subscribe } from "node:diagnostics_channel";

/** The context of an asynchronous execution. */
export interface Scope {
  /** The context as JSON that the server accepts. */
  readonly json: string;
  /** Whether the text of each statement is added under the key `SQL`. */
  readonly currentQuery: boolean;
}

/** What is stored: a new object each time, since a store that is current already would not be a scope of its own. */
interface Stored {
  readonly scope: Scope | undefined;
}

interface State {
  readonly storage: AsyncLocalStorage<Stored>;
  readonly warned: Set<string>;
  /** Whether some copy of node-postgres sends contexts. */
  isInstrumented?: boolean;
}

const make = (): State => {
  const storage = new AsyncLocalStorage<Stored>();
  // The requests of a connection that is kept alive share what was set outside of a middleware; each begins with none.
  subscribe("http.server.request.start", () => storage.enterWith({ scope: undefined }));
  return { storage, warned: new Set() };
};

// The package may be loaded twice, as ESM and as CommonJS, or in two copies: they share one context.
const key = Symbol.for("bemi.state.1");
const shared = globalThis as unknown as Record<symbol, State | undefined>;
const state: State = (shared[key] ??= make());

/** The scope of this asynchronous execution. */
export const currentScope = (): Scope | undefined => state.storage.getStore()?.scope;

/** Runs a function in a scope. */
export const runIn = <T>(scope: Scope | undefined, fn: () => T): T => state.storage.run({ scope }, fn);

/** Has what follows in this asynchronous execution run in a scope. */
export const enter = (scope: Scope | undefined): void => state.storage.enterWith({ scope });

/** Notes that some copy of node-postgres sends contexts. */
export const noteInstrumented = (): void => {
  state.isInstrumented = true;
};

/** Whether some copy of node-postgres sends contexts. */
export const isInstrumented = (): boolean => state.isInstrumented === true;

/** Warns once of each kind. */
export const warnOnce = (kind: string, message: string): void => {
  if (state.warned.has(kind)) return;
  state.warned.add(kind);
  process.emitWarning(message, { type: "BemiWarning", code: `BEMI_${kind}` });
};
