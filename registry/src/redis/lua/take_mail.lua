-- Says who takes over what was left for a group, and what comes next of it. One at a time: whoever asks meanwhile is
-- told who it is, and may do it for them, since what was logged once from a place in the mail is not logged again.
-- KEYS  1 mail, 2 mailed
-- ARGV  1 id of the socket that would take it, 2 id of one that was taking it and is there no more, or '', 3 entries at
--       most
-- Says  {} if there is nothing | {id of who takes it, position, until, key, text, position, …}
local some = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[3])
if #some == 0 then
    return {}
end
local by = redis.call('HGET', KEYS[2], 'by')
if not by or by == ARGV[2] then
    by = ARGV[1]
    redis.call('HSET', KEYS[2], 'by', by)
end
local said = { by }
for _, entry in ipairs(some) do
    local at, fields = #said, entry[2]
    said[at + 1], said[at + 2], said[at + 3], said[at + 4] =
        string.match(entry[1], '^%d+'), fields[6], fields[4], fields[2]
end
return said
