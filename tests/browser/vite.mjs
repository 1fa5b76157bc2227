//! The dev server of Vite with the example configuration, and a page as a team would write it.

import { mkdtemp, mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { endsWith } from './ends.mjs';
import { freePort } from './port.mjs';
import { Program } from './program.mjs';

const EXAMPLE = new URL('../../deploy/examples/vite.config.ts', import.meta.url);
const MODULES = fileURLToPath(new URL('node_modules', import.meta.url));
const NEEDED = ['vite', 'partysocket', 'react', 'react-dom'];

/** The port in the example. */
const PORT = '8787';

export class Vite {
  /** Starts one whose `/__ws` leads to the gateway on `port`, with this module as its page. */
  static async before(t, port, module) {
    const root = await mkdtemp(path.join(os.tmpdir(), 'holdfast-vite-'));
    const vite = new Vite();
    endsWith(t, async () => {
      await vite.program?.stop();
      await rm(root, { recursive: true, force: true });
    });
    // Its own folder of modules, since Vite keeps what it has bundled in there.
    await mkdir(path.join(root, 'node_modules'));
    for (const name of NEEDED) await symlink(path.join(MODULES, name), path.join(root, 'node_modules', name));
    await writeFile(path.join(root, 'package.json'), '{ "private": true, "type": "module" }');
    await writeFile(path.join(root, 'vite.config.ts'), (await readFile(EXAMPLE, 'utf8')).replaceAll(PORT, port));
    const page = '<link rel="icon" href="data:,"><div id="root"></div><script type="module" src="/page.js"></script>';
    await writeFile(path.join(root, 'index.html'), `<!doctype html><title>a page</title>${page}`);
    await writeFile(path.join(root, 'page.js'), module);

    vite.port = await freePort();
    const args = [path.join(MODULES, 'vite/bin/vite.js'), '--port', String(vite.port), '--strictPort'];
    vite.program = new Program(process.execPath, args, { cwd: root, env: { NO_COLOR: '1' } });
    await vite.program.says(/Local:\s+http:/);
    return vite;
  }

  get origin() {
    return `http://localhost:${this.port}`;
  }
}
