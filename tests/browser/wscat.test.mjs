//! wscat and curl, as a user types them.

import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { Gateway } from './gateway.mjs';
import { CTRL_C, shell, terminal } from './terminal.mjs';

suite('wscat', { concurrency: true }, () => {
  /** Checklist 104, 236, 256, 259, 260, 261, 262, 263, 266. */
  test('the two lines printed at the start work as printed', (t) => printedLinesWork(t, {}));

  test('so they do for a gateway that listens everywhere', (t) => printedLinesWork(t, { HOST: '0.0.0.0' }));

  async function printedLinesWork(t, settings) {
    const gateway = await Gateway.start(t, settings);
    const [, wscat] = await gateway.logs(/^ +(npx wscat .*)$/m);
    const [, curl] = await gateway.logs(/^ +(curl .*)$/m);

    const user = terminal(t, wscat);
    await user.says(/Connected \(press CTRL\+C to quit\)/);
    await user.says(/< {"type":"hi",.*}/);
    await user.says(/< {"type":"reset"}/);
    await gateway.logs(/User connected/);

    const answer = JSON.parse(await shell(`${curl} -s`));
    assert.equal(answer.status, 'success', answer.hint);
    assert.equal(answer.message, 'Message delivered');
    const [, frame] = await user.says(/< ({"type":"message",.*})/);
    assert.deepEqual(JSON.parse(frame).data, { hello: 'world' });
    await gateway.logs(/Processing SSE message/);
    await gateway.logs(/Message sent to user/);

    user.types('{"evt":"ping"}\r');
    await user.says(/< {"evt":"pong"}/);
    user.types(CTRL_C);
    await user.ends();
    await gateway.logs(/User disconnected/);
    await gateway.holds(0);
  }

  /** Checklist 259. */
  test('wscat -c "ws://yourserver/ws?user_id=test123"', async (t) => {
    const gateway = await Gateway.start(t);
    const user = terminal(t, `wscat -c "ws://127.0.0.1:${gateway.port}/ws?user_id=test123"`);
    await user.says(/< {"type":"reset"}/);
    assert.equal((await gateway.asks('/api/users/test123')).status, 200);
  });

  /** Checklist 242, 243, 244, 260. */
  test('curl -X POST /sse/push, with a Content-Type, with none, and with what curl -d says by itself', async (t) => {
    const gateway = await Gateway.start(t);
    const user = terminal(t, `wscat -c "ws://127.0.0.1:${gateway.port}/ws?user_id=test123"`);
    await user.says(/< {"type":"reset"}/);
    const types = { json: "-H 'Content-Type: application/json'", none: "-H 'Content-Type:'", form: '' };
    for (const [nth, type] of Object.entries(types)) {
      const body = `{"user_id":"test123","data":{"nth":"${nth}"}}`;
      const answer = await shell(`curl -s -X POST ${gateway.http('/sse/push')} ${type} -d '${body}'`);
      assert.equal(JSON.parse(answer).status, 'success', answer);
      await user.says(new RegExp(`< {"type":"message",.*"nth":"${nth}"`));
    }
    const away = await shell(`curl -s -X POST ${gateway.http('/sse/push')} -d '{"user_id":"who","data":{}}'`);
    const { status, message } = JSON.parse(away);
    assert.deepEqual({ status, message }, { status: 'partial', message: 'User not connected' });
  });

  /** Checklist 61, 120, 145: the status is all that wscat shows of a refusal, the reason is all it shows of a close. */
  test('who is not let in reads why', async (t) => {
    const gateway = await Gateway.start(t);
    const refused = terminal(t, `wscat -c "${gateway.ws('/websocket')}"`);
    await refused.says(/Unexpected server response: 400/);
    await refused.ends();
    const closed = terminal(t, `wscat -c "${gateway.ws('/websocket?reject=close')}"`);
    await closed.says(/Disconnected \(code: 1008, reason: "Missing room_id query parameter"\)/);
    await closed.ends();
  });

  /** Checklist 105: what curl shows in its place. */
  test('curl shows the whole refusal', async (t) => {
    const gateway = await Gateway.start(t);
    const answer = await shell(`curl -s -i "${gateway.http('/websocket?room_id=')}"`);
    assert.match(answer, /^HTTP\/1\.1 400 Bad Request\r$/m);
    assert.match(answer, /^content-type: application\/json\r$/m);
    assert.match(answer, /"error":"room_id parameter is required and must not be empty"/);
  });
});
