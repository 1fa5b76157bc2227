-- Gives a socket to a client that has a token for it, whoever held it before. Nothing that ended comes back, and no
-- token counts after the connection that it opened was heard. Asking twice with one connection is asking once.
-- KEYS  1 row, 2 owned by the claimant, 3 live, 4 ended; in the same slot lie the previous owner's entries, whose key
--       differs from the second in the mark alone, and what it left behind
-- ARGV  1 id, 2 session, 3 attempt, 4 acceptedAt, 5 owner, 6 address, 7 the session's part of the h32,
--       8 for how many ms it is told what was left behind
-- Says  {'back', bad, acceptedAt as it is now, what was of the row: its fields before, name and value in turn}
--       | {'unknown'} | {'ended'} | {'later'}; bad names a key of a foreign type that was left alone, or is ''
local id, session = ARGV[1], ARGV[2]
local n, accepted = tonumber(ARGV[3]), tonumber(ARGV[4])
local fields = redis.call('HGETALL', KEYS[1])
if #fields == 0 then
    return { 'unknown' }
end
local was = {}
for i = 1, #fields, 2 do
    was[fields[i]] = fields[i + 1]
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local due = was.state == 'away' and tonumber(was.due)
if (was.state ~= 'live' and was.state ~= 'away') or not was.window or not was.says or (due and due <= now) then
    return { 'ended' }
end
local held, held_at = tonumber(was.attempt) or 0, tonumber(was.accepted) or 0
local again = was.state == 'live' and was.session == session
-- Two instances tell the time so far apart at most; within it the one that asks last is the later one.
local APART = 1000
if again then
    n, accepted = held, held_at
elseif (tonumber(was.confirmed) or 0) >= n or n < held or (n == held and held_at - accepted > APART) then
    return { 'later' }
elseif n == held and accepted <= held_at then
    accepted = held_at + 1
end
accepted = string.format('%.0f', accepted)
redis.call('HSET', KEYS[1], 'owner', ARGV[5], 'session', session, 'attempt', string.format('%d', n), 'accepted', accepted,
    'state', 'live', 'address', ARGV[6])
if was.state == 'away' then
    redis.call('HDEL', KEYS[1], 'due', 'endedAt', 'cause', 'reason', 'code')
    redis.call('PERSIST', KEYS[1])
    redis.pcall('ZREM', KEYS[4], id)
end

local h32 = bit.bxor(tonumber(was.says), tonumber(ARGV[7]))
if h32 < 0 then
    h32 = h32 + 4294967296
end
local bad = add_entry(KEYS[2], id, session, string.format('%.0f', h32))
-- Who held it last is not told by anybody whose answer may be lost, but by its digest: REGISTER says more.
succeed(KEYS[2], id, was.owner, was.session, { was.user, was.store, was.rooms, was.client, was.address }, ARGV[8])
local listed = redis.pcall('ZADD', KEYS[3], 0, id)
if type(listed) == 'table' then
    bad = KEYS[3]
end
return { 'back', bad, accepted, unpack(fields) }
