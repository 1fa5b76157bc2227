//! What a test has begun ends with it: the last first, so that no client outlives its server.

const begun = new WeakMap();

/** Has `end` called when the test (or the file, for `node:test` itself) is over. */
export function endsWith(t, end) {
  if (!begun.has(t)) {
    begun.set(t, []);
    t.after(async () => {
      const ends = begun.get(t);
      while (ends.length > 0) await ends.pop()();
    });
  }
  begun.get(t).push(end);
}
