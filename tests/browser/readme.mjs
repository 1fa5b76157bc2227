//! The README, so that what it shows is what is proved.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';

const README = readFileSync(new URL('../../README.md', import.meta.url), 'utf8');

/** The text of a section. */
export function section(heading) {
  const found = README.split(/^## /m).find((text) => text.startsWith(`${heading}\n`));
  assert.ok(found, `the README has a section ${heading}`);
  return found;
}

/** Its code blocks of one language, in order. */
export function blocks(heading, language) {
  const found = [...section(heading).matchAll(/^```(\w+)\n([^]*?)^```$/gm)].filter(([, of]) => of === language);
  return found.map(([, , code]) => code);
}
