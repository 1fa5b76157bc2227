// Holdfast under pm2: three instances behind nginx, on the ports 8081, 8082 and 8083.
//
//   pm2 start ecosystem.config.cjs       start them, once
//   pm2 reload holdfast --parallel 1     restart one after the other, which costs no call
//   pm2 save && pm2 startup              come back after a reboot
//   pm2 monit, pm2 show 0                memory and processor, and beside them sockets, calls and unsent bytes
//   holdfast instances                   who serves, with restarts and versions (with the API_TOKEN, and --url or PORT)
//   holdfast drain web1-1:8082 --wait    send one away; `pm2 start 1`, by its number, brings it back
//
// In fork mode pm2 cannot start the new process before the old one is gone, and the port is free: `pm2 reload` stops an
// instance (SIGINT: it drains), starts it again, waits until it says ready, and goes on with the next. Without
// `--parallel 1` pm2 takes two at a time. nginx sends new sockets to those that serve.
//
// Reload by the name, as above, and not by this file: `pm2 start`, `restart` and `reload ecosystem.config.cjs` would give
// every running instance the first PORT (pm2 7.0), of which all but one die with "Address already in use". So keep settings
// in holdfast.toml, which each start reads. After a change in this file itself:
//   pm2 delete holdfast && pm2 start ecosystem.config.cjs

module.exports = {
  apps: [
    {
      name: 'holdfast',
      script: '/usr/local/bin/holdfast',
      // A native program: no Node, and no cluster module.
      interpreter: 'none',
      exec_mode: 'fork',

      instances: 3,
      // 8081, 8082, 8083. Each is named by host, number and port (web1-0:8081), so INSTANCE stays unset.
      increment_var: 'PORT',

      // Online is who has said that it is ready; Redis may take its time.
      wait_ready: true,
      listen_timeout: 15000,

      // Above DRAIN_TIMEOUT (10 s), in which sockets are told to come back elsewhere. pm2's own 1600 would cut that short.
      kill_timeout: 15000,

      // What pm2 does not start again: 78, a wrong setting, which does not mend itself; 79, drained by `holdfast drain`.
      // Never 0 here: pm2 takes a process that was killed by a signal for one that ended with 0.
      stop_exit_codes: [78, 79],
      // Anything else starts again at once; who dies sixteen times within a second of its start is left alone (errored).
      // No restart_delay and no exp_backoff_restart_delay: with them pm2 shows "waiting restart" for ever after 78 and 79.
      autorestart: true,
      max_restarts: 16,
      min_uptime: 1000,

      // Files of its own for each instance. Its lines have a time already, so none of pm2's (no `time`, no log_date_format).
      merge_logs: false,
      // pm2 does not need to know of Git, or of the processes below: there are none.
      vizion: false,
      treekill: false,

      env: {
        HOST: '127.0.0.1',
        PORT: 8081,
        HOLDFAST_CONFIG: '/etc/holdfast/holdfast.toml',
        // Secrets by file: what stands here itself, `pm2 save` writes in plain text to ~/.pm2/dump.pm2.
        API_TOKEN_FILE: '/etc/holdfast/api_token',
        REDIS_URL_FILE: '/etc/holdfast/redis_url',
      },
    },
  ],
};
