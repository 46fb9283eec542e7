/** Where this package is; `scripts/build.mjs` gives each module system its own word for it. */
export const here: string = __filename;
