//! A browser that is logged in at the application: its cookie goes along by itself, and says who it is.

import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import express from 'express';
import session from 'express-session';
import { Chromium } from './chromium.mjs';
import { endsWith } from './ends.mjs';
import { Gateway } from './gateway.mjs';
import { blocks } from './readme.mjs';

/** The lines of the README that say whose a session is. */
const WHOSE = blocks('Who may open one', 'js').find((code) => code.includes('req.session'));

/** An application with pages, where `/login/ann` is all it takes, and which knows whose a session is. */
async function application(t) {
  const asked = [];
  const app = express();
  app.use((request, _, next) => {
    if (request.path === '/session') asked.push(request.headers);
    next();
  });
  app.use(session({ name: 'sid', secret: 'of a test', resave: false, saveUninitialized: false }));
  new Function('app', WHOSE)(app);
  app.get('/login/:user', (request, response, next) => {
    request.session.userId = request.params.user;
    next();
  });
  app.use((_, response) => response.type('html').send('<!doctype html><title>a shop</title><link rel="icon" href="data:,">'));
  const server = await new Promise((resolve) => {
    const server = app.listen(0, '127.0.0.1', () => resolve(server));
  });
  endsWith(t, () => {
    server.close();
    server.closeAllConnections();
  });
  return { asked, origin: `http://127.0.0.1:${server.address().port}` };
}

suite('A session in Chromium', { concurrency: 3 }, () => {
  let chromium;
  before(async () => (chromium = await Chromium.start()));
  after(() => chromium.stop());

  async function behind(t) {
    const shop = await application(t);
    const settings = { AUTH: 'session', SESSION_URL: `${shop.origin}/session`, SESSION_COOKIE: 'sid' };
    return { shop, gateway: await Gateway.start(t, settings) };
  }

  /** Checklist 63, 73, 125. */
  test('whoever is logged in comes in as who it is', async (t) => {
    const { shop, gateway } = await behind(t);
    const tab = await chromium.tab(t, shop.origin);
    await tab.page.goto(`${shop.origin}/login/ann`);
    const { ear } = await tab.connect(gateway.ws('/ws?reject=close'));
    const { socketId } = await ear.isGreeted();
    assert.equal((await gateway.asks(`/api/sockets/${socketId}`)).json.userId, 'ann');
    assert.equal(shop.asked.length, 1);
    const told = await tab.fetch(gateway.http('/api/auth/session'), { credentials: 'include' });
    assert.equal(JSON.parse(told.body).userId, 'ann');
    const [cookie] = (await tab.page.context().cookies()).map(({ value }) => decodeURIComponent(value));
    assert.equal(decodeURIComponent(shop.asked[0].cookie), `sid=${cookie}`);
    assert.ok(!gateway.output.includes(cookie.slice(5, 25)), 'it is not logged');
  });

  test('whoever is not logged in reads why, and comes in after the login', async (t) => {
    const { shop, gateway } = await behind(t);
    const tab = await chromium.tab(t, shop.origin);
    const { ear } = await tab.connect(gateway.ws('/ws?reject=close'));
    assert.deepEqual(await ear.closes(), { code: 1008, reason: 'Unauthorized. Please log in.', wasClean: true });
    await tab.page.goto(`${shop.origin}/login/bob`);
    const again = await tab.connect(gateway.ws('/ws?reject=close'));
    await again.ear.isGreeted();
  });

  /** A visitor of another site has the cookie in its browser all the same. */
  test('a page of another origin cannot use it', async (t) => {
    const { shop, gateway } = await behind(t);
    const tab = await chromium.tab(t, shop.origin);
    await tab.page.goto(`${shop.origin}/login/ann`);
    await tab.page.goto(chromium.origin('evil.test'));
    const { ear } = await tab.connect(gateway.ws('/ws?reject=close'));
    assert.equal((await ear.closes()).code, 1006);
    await gateway.logs(/WebSocket upgrade failed: Origin not allowed/);
    assert.equal(shop.asked.length, 0);
    const told = await tab.fetch(gateway.http('/api/auth/session'), { credentials: 'include' });
    assert.ok(told.error, JSON.stringify(told));
    assert.equal(shop.asked.length, 0);
  });
});
