//! How long a fact may take to come true. Nothing sleeps for a guess: whoever waits says for what.

/** Long enough for two busy cores, short enough to be waited for. */
const PATIENCE_MS = 20_000;
/** How often `eventually` looks. */
const LOOK_MS = 20;

/** The promise's value, or an error that says what did not happen. */
export async function soon(what, promise, ms = PATIENCE_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what()}: not within ${ms / 1000} s`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Looks again and again until there is something to see, and returns it. */
export async function eventually(what, look, ms = PATIENCE_MS) {
  const until = Date.now() + ms;
  for (;;) {
    const seen = await look();
    if (seen) return seen;
    if (Date.now() > until) throw new Error(`${what}: not within ${ms / 1000} s`);
    await sleep(LOOK_MS);
  }
}

/** For facts about silence only. */
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
