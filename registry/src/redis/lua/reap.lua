-- Marks sockets of a dead incarnation as lost, or as away those that may come back. Names them again when asked
-- again, until the caller is done with their groups and takes the entries away.
-- KEYS  1 live, 2 ended, 3.. rows
-- ARGV  1 the dead incarnation, 2 for how many ms the rows stay, as for UNREGISTER, 3.. ids, in the order of the rows
-- Says  for each row that was the dead one's: {id, session, user, store, rooms, client, address, since when it was
--       connected, 'lost' | 'away'}
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local found = {}
for i = 3, #KEYS do
    local row = redis.pcall('HMGET', KEYS[i], 'owner', 'state', 'session', 'user', 'store', 'rooms', 'client', 'address',
        'window', 'connectedAt')
    if row[1] == ARGV[1] and (row[2] == 'live' or row[2] == 'lost' or row[2] == 'away') then
        local id = ARGV[i]
        if row[2] == 'live' then
            local window = tonumber(row[9])
            local stays = tonumber(ARGV[2])
            redis.call('HSET', KEYS[i], 'state', window and 'away' or 'lost', 'cause', 'instance_crash', 'endedAt',
                string.format('%.0f', now))
            if window then
                local due = string.format('%.0f', now + window * 1000)
                redis.call('HSET', KEYS[i], 'due', due)
                redis.pcall('ZADD', KEYS[2], due, id)
                stays = stays + window * 1000 + 60000
            end
            redis.call('PEXPIRE', KEYS[i], string.format('%.0f', stays))
            redis.pcall('ZREM', KEYS[1], id)
        end
        found[#found + 1] =
            { id, row[3] or '', row[4] or '', row[5] or '', row[6] or '', row[7] or '', row[8] or '', row[10] or '',
                row[2] == 'live' and (row[9] and 'away' or 'lost') or row[2] }
    end
end
return found
