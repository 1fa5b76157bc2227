// What the scenario cannot say itself: names, and a client that answers calls.
let count = 0;

const name = (context) => {
  const user = `load-${process.pid}-${(count += 1)}`;
  const socketUrl = `${context.vars.target.replace(/^http/, 'ws')}/ws?user_id=${user}&client_id=${user}`;
  Object.assign(context.vars, { user, store: `store-${count % 10}`, socketUrl });
};

/** Its own user, and one of ten stores. */
module.exports.named = async (context) => name(context);

/** The same, and its socket is opened here and answers what it is asked. */
module.exports.answers = async (context) => {
  name(context);
  const socket = new WebSocket(context.vars.socketUrl);
  socket.onmessage = ({ data }) => {
    const { callId, type } = JSON.parse(data);
    if (callId && type !== 'cancel') socket.send(JSON.stringify({ type: 'reply', callId, data: 1 }));
  };
  await new Promise((opened, failed) => Object.assign(socket, { onopen: opened, onerror: failed }));
  context.vars.socket = socket;
};

module.exports.leaves = async (context) => context.vars.socket.close(1000);
