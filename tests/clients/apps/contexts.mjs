/** The rows without the key SQL that `currentQuery` adds, in the apps that have it. */
export function contextsWithoutSQL(rows, { currentQuery }) {
  if (!currentQuery) return rows;
  return rows.map(({ context: { SQL, ...context }, ...row }) => ({ ...row, context }));
}

/** The same text for equal JSON values, whatever the order of their keys. */
export function canonical(value) {
  return JSON.stringify(value, (_key, part) => {
    if (part === null || typeof part !== "object" || Array.isArray(part)) return part;
    const entries = Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1));
    return Object.fromEntries(entries);
  });
}
