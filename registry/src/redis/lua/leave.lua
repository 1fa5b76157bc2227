-- Leaves a durable delivery for a group without sockets. Who is there stands in the same slot, so that nobody can come
-- in between and miss it.
-- KEYS  1 mail, 2 mailed, 3 sockets of the group that may be resumed, 4 instances that hold members, 5 where it stands
--       for a while that this delivery was left
-- ARGV  1 text, 2 ms it is kept, 3 entries at most, 4 bytes at most, 5 ms it is known when asked again, 6 its key
-- Says  'left' | 'somebody' | 'full'
if redis.call('EXISTS', KEYS[5]) == 1 then
    -- Written again, so that whoever waits for replicas now waits for what was written then.
    redis.call('PEXPIRE', KEYS[5], ARGV[5])
    return 'left'
end
if redis.call('EXISTS', KEYS[3], KEYS[4]) > 0 then
    return 'somebody'
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = redis.call('HMGET', KEYS[2], 't', 'c', 'b', 'x')
local tail, seq = tonumber(held[1]) or 0, time[1] * 1000000 + time[2]
if seq <= tail then
    seq = tail + 1
end
local length, count = #ARGV[1], redis.call('XLEN', KEYS[1])
local bytes, base = tonumber(held[2]) or 0, tonumber(held[3]) or 0
if count == 0 then
    bytes, base = 0, 0
end
local function has_room()
    return count < tonumber(ARGV[3]) and bytes - base + length <= tonumber(ARGV[4])
end
if not has_room() then
    -- What is over goes first. Each entry is {id, {m, text, k, key, u, until, c, bytes}}.
    local over
    repeat
        local some, nth = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 50), 0
        while some[nth + 1] and tonumber(some[nth + 1][2][6]) <= now do
            nth = nth + 1
        end
        over = some[nth]
        if over then
            local last = string.match(over[1], '^%d+')
            redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f', tonumber(last) + 1))
            count, base = count - nth, tonumber(over[2][8])
        end
    until not over or nth < #some
end
if not has_room() then
    return 'full'
end
bytes = bytes + length
local lasts = now + tonumber(ARGV[2])
local c, u = string.format('%d', bytes), string.format('%.0f', lasts)
seq = string.format('%.0f', seq)
redis.call('XADD', KEYS[1], seq .. '-0', 'm', ARGV[1], 'k', ARGV[6], 'u', u, 'c', c)
redis.call('SET', KEYS[5], '1', 'PX', ARGV[5])
redis.call('HSET', KEYS[2], 't', seq, 'c', c, 'b', string.format('%d', base))
if lasts > (tonumber(held[4]) or 0) then
    -- Some minutes more, so that this is not done for each one that lasts longer than the one before.
    local stays = string.format('%.0f', tonumber(ARGV[2]) + 600000)
    redis.call('PEXPIRE', KEYS[1], stays)
    redis.call('PEXPIRE', KEYS[2], stays)
    redis.call('HSET', KEYS[2], 'x', string.format('%.0f', lasts + 600000))
end
return 'left'
