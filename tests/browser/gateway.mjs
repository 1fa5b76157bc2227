//! A running gateway: `HOLDFAST_BIN`, or what cargo has built.

import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import path from 'node:path';
import { endsWith } from './ends.mjs';
import { eventually } from './patience.mjs';
import { freePort } from './port.mjs';
import { Program } from './program.mjs';

const BINARY = path.resolve(
  process.env.HOLDFAST_BIN ?? fileURLToPath(new URL('../../target/debug/holdfast', import.meta.url)),
);

export class Gateway {
  static BINARY = BINARY;
  #program;
  #settings;

  /** Starts one on a free port and waits for `ready`; it ends with the test `t`. */
  static async start(t, settings = {}) {
    const gateway = new Gateway();
    gateway.#settings = { HOST: '127.0.0.1', PORT: '0', LOG_LEVEL: 'debug', ...settings };
    endsWith(t, () => gateway.#program.stop());
    await gateway.#serve();
    return gateway;
  }

  /** One that can be started again where it was. */
  static async startAgainable(t, settings = {}) {
    return Gateway.start(t, { ...settings, PORT: String(await freePort()) });
  }

  async #serve() {
    this.#program = new Program(BINARY, [], { env: this.#settings });
    await this.#program.says(/^ready$/m);
    this.port = Number(this.output.match(/ http:\/\/\S+:(\d+)/)[1]);
  }

  get output() {
    return this.#program.output;
  }

  get pid() {
    return this.#program.pid;
  }

  get host() {
    return `127.0.0.1:${this.port}`;
  }

  http(target) {
    return `http://${this.host}${target}`;
  }

  ws(target) {
    return `ws://${this.host}${target}`;
  }

  /** Ends it as asked, or with SIGKILL as by accident. */
  async ends(signal = 'SIGTERM') {
    process.kill(this.pid, signal);
    const { code } = await this.#program.ends();
    if (signal === 'SIGTERM') assert.equal(code, 0, this.output);
  }

  /** Starts it again on the same port. */
  async comesBack() {
    this.#settings.PORT = String(this.port);
    await this.#serve();
  }

  /** Waits for this in what it has printed. */
  logs(pattern) {
    return this.#program.says(pattern);
  }

  /** What it answers: status, headers, and the body read as JSON where it is. */
  async asks(target, { json, ...options } = {}) {
    const posted = json && {
      method: 'POST',
      body: JSON.stringify(json),
      headers: { 'content-type': 'application/json' },
    };
    const response = await fetch(this.http(target), { ...posted, ...options });
    const text = await response.text();
    const isJson = response.headers.get('content-type')?.includes('json');
    return { status: response.status, headers: response.headers, text, json: isJson ? JSON.parse(text) : undefined };
  }

  /** Waits until it holds so many sockets. */
  async holds(sockets) {
    await eventually(`${sockets} sockets are held`, async () => {
      return (await this.asks('/health')).json.connections === sockets;
    });
  }

  /** Waits for the end of a socket, and returns why it ended. */
  async verdict(socketId) {
    return eventually(`${socketId} has ended`, async () => {
      const { status, json } = await this.asks(`/api/sockets/${socketId}`);
      return status === 410 && json.verdict;
    });
  }
}
