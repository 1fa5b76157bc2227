//! A real nginx in front of gateways: with the shipped nginx/holdfast.conf, or with locations of a fact's own.

import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { endsWith } from './ends.mjs';
import { freePort } from './port.mjs';
import { Program } from './program.mjs';

/** As it is shipped; only ports and places on the disk become others. */
const SHIPPED = fileURLToPath(new URL('../../nginx/holdfast.conf', import.meta.url));

/**
 * What every guide says, with a pool of connections for what is no WebSocket. `$http_host`, since `$host` forgets the
 * port, without which the gateway would not know the origin of a page on another port than 443.
 */
export const UPGRADES = `
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header Host $http_host;`;

const TLS = 'ssl_certificate certificate.pem; ssl_certificate_key key.pem';

export class Nginx {
  /** Starts one in front of these ports with the shipped file; it ends with the test `t`. With locations: those alone. */
  static before(t, ports, locations) {
    return new Nginx('').#start(t, [ports].flat(), locations);
  }

  /** The same with TLS, and a certificate that nobody has signed. */
  static beforeWithTls(t, port, locations) {
    return new Nginx('s').#start(t, [port], locations);
  }

  /** `s` behind `http` and `ws`, or nothing. */
  #secure;

  constructor(secure) {
    this.#secure = secure;
  }

  async #start(t, ports, locations) {
    const prefix = await mkdtemp(path.join(os.tmpdir(), 'holdfast-nginx-'));
    endsWith(t, async () => {
      await this.program?.stop();
      await rm(prefix, { recursive: true, force: true });
    });
    if (this.#secure) await selfSign(prefix);
    do {
      this.port = await freePort();
      const listen = `listen 127.0.0.1:${this.port}${this.#secure && ` ssl; ${TLS}`};`;
      const served = locations ? server(listen, ports[0], locations) : await shipped(listen, ports);
      await writeFile(path.join(prefix, 'nginx.conf'), configuration(served));
      this.program = new Program('nginx', ['-p', prefix, '-c', 'nginx.conf', '-e', 'stderr']);
    } while (!(await this.#listens()));
    return this;
  }

  /** False if somebody else was given the port meanwhile. */
  async #listens() {
    const [line] = await this.program.says(/start worker process \d+|Address already in use|\[emerg\].*/);
    if (line.startsWith('[emerg]') && !line.includes('Address already in use')) throw new Error(line);
    if (line.startsWith('start')) return true;
    await this.program.stop();
    return false;
  }

  get host() {
    return `127.0.0.1:${this.port}`;
  }

  http(target) {
    return `http${this.#secure}://${this.host}${target}`;
  }

  ws(target) {
    return `ws${this.#secure}://${this.host}${target}`;
  }
}

/** As little as a browser needs that is told to believe it. */
async function selfSign(prefix) {
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  const named = ['-subj', '/CN=app.test', '-days', '2', '-keyout', 'key.pem', '-out', 'certificate.pem'];
  const { code, output } = await Program.run('openssl', ['req', '-x509', ...curve, ...named], { cwd: prefix });
  if (code !== 0) throw new Error(output);
}

/** The shipped file for these ports, the first for the first that it names; where there are fewer, the others go. */
async function shipped(listen, ports) {
  const named = ['8081', '8082', '8083'];
  const lines = (await readFile(SHIPPED, 'utf8')).split('\n').map((line) => {
    const [, port, rest] = line.match(/^ *server 127\.0\.0\.1:(\d+)(.*)$/) ?? [];
    if (port) return named.indexOf(port) < ports.length ? `server 127.0.0.1:${ports[named.indexOf(port)]}${rest}` : '';
    if (/^ *listen /.test(line)) return line.includes('[::]') ? '' : listen;
    return line.replace('/var/log/nginx/', '');
  });
  return lines.join('\n');
}

function server(listen, upstream, locations) {
  return `
  map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
  upstream gateway { server 127.0.0.1:${upstream}; keepalive 8; }
  server {
    ${listen}
    ${locations}
  }`;
}

function configuration(served) {
  return `
daemon off;
worker_processes 1;
${process.getuid() === 0 ? 'user root;' : ''}
pid nginx.pid;
error_log stderr notice;
events { worker_connections 256; }
http {
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  ${served}
}
`;
}
