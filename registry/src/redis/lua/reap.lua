-- Marks sockets of a dead incarnation as lost. Names them again when asked again, until the caller is
-- done with their groups and takes the entries away.
-- KEYS  1 live, 2.. rows
-- ARGV  1 the dead incarnation, 2 for how many ms the rows stay, 3.. ids, in the order of the rows
-- Says  for each row that was the dead one's: {id, session, user, store, rooms, client, address}
local t = redis.call('TIME')
local now = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
local found = {}
for i = 2, #KEYS do
    local row = redis.pcall('HMGET', KEYS[i], 'owner', 'state', 'session', 'user', 'store', 'rooms', 'client', 'address')
    if row[1] == ARGV[1] and (row[2] == 'live' or row[2] == 'lost') then
        local id = ARGV[i + 1]
        if row[2] == 'live' then
            redis.call('HSET', KEYS[i], 'state', 'lost', 'cause', 'instance_crash', 'endedAt', now)
            redis.call('PEXPIRE', KEYS[i], ARGV[2])
            redis.pcall('ZREM', KEYS[1], id)
        end
        found[#found + 1] =
            { id, row[3] or '', row[4] or '', row[5] or '', row[6] or '', row[7] or '', row[8] or '' }
    end
end
return found
