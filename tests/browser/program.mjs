//! A program that a fact starts: what it prints, and its end. None outlives the tests.

import { spawn } from 'node:child_process';
import { eventually, soon } from './patience.mjs';

/** All that may still run. Each leads a process group of its own, so that its children end with it. */
const running = new Set();

process.on('exit', () => running.forEach((program) => program.kill('SIGKILL')));
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(signal, () => process.exit(1));

export class Program {
  #child;
  #ended;
  /** Everything printed so far, on either stream. */
  output = '';

  /** Starts it, with nothing in its environment but PATH and what is given. */
  constructor(command, args = [], { env = {}, cwd, input = false } = {}) {
    this.name = command;
    this.#child = spawn(command, args, {
      cwd,
      env: { PATH: process.env.PATH, HOME: process.env.HOME, LANG: 'C.UTF-8', ...env },
      detached: true,
      stdio: [input ? 'pipe' : 'ignore', 'pipe', 'pipe'],
    });
    running.add(this);
    this.#child.stdin?.on('error', () => {});
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => (this.output += text));
    }
    this.#ended = new Promise((resolve) => {
      this.#child.once('error', (error) => resolve({ code: null, signal: null, error }));
      this.#child.once('close', (code, signal) => resolve({ code, signal }));
    }).then((end) => {
      running.delete(this);
      return (this.end = end);
    });
  }

  /** Runs it to its end. */
  static async run(command, args, options) {
    const program = new Program(command, args, options);
    const { code, error } = await program.ends();
    if (error) throw error;
    return { code, output: program.output };
  }

  get pid() {
    return this.#child.pid;
  }

  /** Waits until it prints this, behind what was there at `from`; returns the match. */
  async says(pattern, from = 0) {
    const seen = () => this.output.slice(from).match(pattern);
    try {
      const match = await eventually(`${this.name} prints ${pattern}`, () => seen() ?? this.end);
      if (match !== this.end) return match;
      const last = seen();
      if (last) return last;
      throw new Error(`${this.name} ended without printing ${pattern}`);
    } catch (error) {
      error.message += `; it printed:\n${this.output}${this.end?.error ?? ''}`;
      throw error;
    }
  }

  /** Types a line. */
  types(line) {
    this.#child.stdin.write(line);
  }

  /** Waits for its end. */
  ends() {
    return soon(() => `${this.name} ends; it printed:\n${this.output}`, this.#ended);
  }

  /** By its pid, it and what it started. */
  kill(signal) {
    try {
      process.kill(-this.pid, signal);
    } catch (error) {
      if (error.code !== 'ESRCH') throw error;
    }
  }

  /** Ends it for good. */
  async stop() {
    if (this.end || !this.pid) return this.#ended;
    this.kill('SIGTERM');
    const patience = setTimeout(() => this.kill('SIGKILL'), 5_000);
    try {
      return await this.ends();
    } finally {
      clearTimeout(patience);
    }
  }
}
