-- Takes a queued call back.
-- KEYS  1 its record
-- Says  {} if there is none | {'done'} | {waits or given, group, patience, owner or '', socket or ''}
local was = redis.call('HMGET', KEYS[1], 'state', 'group', 'patience', 'owner', 'socket')
if not was[1] then
    return {}
end
if was[1] == 'done' then
    return { 'done' }
end
redis.call('DEL', KEYS[1])
return { was[1], was[2] or '', was[3] or '', was[4] or '', was[5] or '' }
