// What the scenario cannot say itself: names, and a client that answers calls.
let count = 0;

const doorOf = (target, context) => {
  const user = `load-${process.pid}-${(count += 1)}`;
  Object.assign(context.vars, { user, store: `store-${count % 10}` });
  return `${target.replace(/^http/, 'ws')}/ws?user_id=${user}&client_id=${user}`;
};

/** Each client has its own user, and one of ten stores. */
module.exports.named = (socket, context, done) => {
  socket.target = doorOf(socket.target, context);
  done();
};

/** The same, and its socket is opened here and answers what it is asked. Node has WebSocket from 22 on. */
module.exports.answers = async (context) => {
  const socket = new WebSocket(doorOf(context.vars.target, context));
  socket.onmessage = ({ data }) => {
    const { callId, type } = JSON.parse(data);
    if (callId && type !== 'cancel') socket.send(JSON.stringify({ type: 'reply', callId, data: 1 }));
  };
  await new Promise((opened, failed) => Object.assign(socket, { onopen: opened, onerror: failed }));
  context.vars.socket = socket;
};

module.exports.leaves = async (context) => context.vars.socket.close(1000);
