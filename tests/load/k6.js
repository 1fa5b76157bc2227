// Clients that answer, and a server that asks them. See README.md beside.
import http from 'k6/http';
import { check } from 'k6';
import exec from 'k6/execution';
import { Counter, Rate, Trend } from 'k6/metrics';
import { WebSocket } from 'k6/websockets';

const url = (__ENV.URL || 'http://127.0.0.1:8080').replace(/\/$/, '');
const sockets = Number(__ENV.SOCKETS || 200);
const seconds = Number(__ENV.SECONDS || 30);
const headers = { 'Content-Type': 'application/json' };
if (__ENV.API_TOKEN) headers.Authorization = `Bearer ${__ENV.API_TOKEN}`;

const refused = new Counter('handshakes_refused');
const answered = new Rate('calls_answered');
const callSeconds = new Trend('call_seconds');

export const options = {
  scenarios: {
    clients: { executor: 'per-vu-iterations', exec: 'client', vus: sockets, iterations: 1, maxDuration: `${seconds + 30}s` },
    // They begin when the clients are there, and end before those leave.
    server: {
      executor: 'constant-arrival-rate',
      exec: 'server',
      rate: Number(__ENV.CALLS || 20),
      preAllocatedVUs: 20,
      startTime: '5s',
      duration: `${Math.max(seconds - 8, 1)}s`,
    },
  },
  thresholds: { handshakes_refused: ['count==0'], calls_answered: ['rate==1'], call_seconds: ['p(99)<1'] },
};

/** One tab: its number is its name. */
export function client() {
  const name = exec.scenario.iterationInTest;
  const socket = new WebSocket(`${url.replace(/^http/, 'ws')}/ws?user_id=load-${name}&client_id=load-${name}`);
  let isOpen = false;
  socket.onopen = () => {
    isOpen = true;
    socket.send(JSON.stringify({ type: 'selectStore', data: { storeId: `store-${name % 10}` } }));
    setTimeout(() => socket.close(1000), seconds * 1000);
  };
  socket.onmessage = ({ data }) => {
    const { callId, type } = JSON.parse(data);
    if (callId && type !== 'cancel') socket.send(JSON.stringify({ type: 'reply', callId, data: { name } }));
  };
  socket.onerror = () => isOpen || refused.add(1);
}

/** Asks one of them, and tells all of a store. */
export function server() {
  const name = Math.floor(Math.random() * sockets);
  const body = JSON.stringify({ userId: `load-${name}`, event: 'ask', data: {}, timeoutMs: 5000 });
  const call = http.post(`${url}/api/call`, body, { headers });
  answered.add(check(call, { 'it answers itself': (call) => call.status === 200 && call.json('result.name') === name }));
  callSeconds.add(call.timings.duration / 1000);
  http.post(`${url}/api/send`, JSON.stringify({ storeId: `store-${name % 10}`, event: 'news', data: {} }), { headers });
}
