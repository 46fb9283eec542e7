import * as context from "./context.js";
import { instrumentPgOf } from "./find-pg.js";
import { isInstrumented } from "./instrument.js";

/** The functions that set a context, for one entry point: the first context has its `pg` instrumented, whoever made that. */
export interface Entry {
  /** Has the `pg` of this entry point send contexts. @throws Error if there is none, and none was passed to `instrument`. */
  instrumentOnce(): void;
  bemiContext: typeof context.bemiContext;
  mergeBemiContext: typeof context.mergeBemiContext;
}

/** `chains` lead to the `pg` of an entry point, as in `instrumentPgOf`. */
export const entry = (...chains: string[][]): Entry => {
  let isDone = false;
  const instrumentOnce = (): void => {
    if (isDone) return;
    try {
      instrumentPgOf(...chains);
    } catch (error) {
      // It may be hidden in a bundle; then somebody has passed it to instrument().
      if (!isInstrumented()) throw error;
    }
    isDone = true;
  };
  return {
    instrumentOnce,
    bemiContext<T>(value: object | null | undefined, fn?: () => T): T | undefined {
      if (value != null) instrumentOnce();
      return fn ? context.bemiContext(value, fn) : (context.bemiContext(value), undefined);
    },
    mergeBemiContext<T>(partial: object, fn?: () => T): T | undefined {
      instrumentOnce();
      return fn ? context.mergeBemiContext(partial, fn) : (context.mergeBemiContext(partial), undefined);
    },
  } as Entry;
};
