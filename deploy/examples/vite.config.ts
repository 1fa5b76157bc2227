// A dev server whose pages reach the gateway under their own address: `/__ws` leads to it, as in
// `new WebSocket('/__ws/websocket?room_id=test-room')`. Start the gateway beside it with
//
//   PORT=8787 holdfast
//
// No `rewrite` is needed: the gateway takes `/__ws` for what it is and reads what stands behind it.
import { defineConfig } from 'vite';

export default defineConfig({
  server: {
    proxy: {
      '/__ws': {
        // Not `localhost`: that may be ::1, where nobody listens.
        target: 'http://127.0.0.1:8787',
        // WebSockets too, not only HTTP.
        ws: true,
        // `Host` becomes the gateway's. `Origin` stays the page's: every port of localhost is allowed
        // unless CORS_ORIGINS says otherwise, and then it has to name the dev server.
        changeOrigin: true,
        // Says that it is a proxy. Else whoever reaches the dev server would pass for this machine, and the gateway
        // would tell it, and let it do, everything.
        xfwd: true,
      },
    },
  },
});
