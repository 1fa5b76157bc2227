-- Logs an event, which somebody is to be told; for it the oldest goes that has no room any more, and all of them after
-- their time, should nobody come for them. Says its id, and how many went; no id where the key is of a foreign type.
local function log_event(key, max, stays, event)
    local id = redis.pcall('XADD', key, '*', 'event', event)
    if type(id) == 'table' then
        return '', 0
    end
    local gone = redis.call('XTRIM', key, 'MAXLEN', max)
    redis.call('PEXPIRE', key, stays)
    return id, gone
end
