-- Looks whether entries that were logged are still accounted for; if not, the log is broken off: what comes next names
-- a number that nobody has, so that whoever has not read so far finds the gap. Field w says so, too: whoever has less
-- than that misses something.
-- KEYS  1 row, 2 log, 3 logged
-- ARGV  1 ms the end of a log is remembered, 2 now by Redis' clock as the caller estimates it, 3.. seq and until of
--       each in turn
-- Says  1 if something was lost, else 0
local state = redis.call('HGET', KEYS[1], 'state')
if state ~= 'live' and state ~= 'away' then
    return 0
end
local held = redis.call('HMGET', KEYS[3], 't', 'a')
local tail, gone = tonumber(held[1]) or 0, tonumber(held[2]) or 0
for i = 3, #ARGV, 2 do
    local seq = tonumber(ARGV[i])
    if tonumber(ARGV[i + 1]) > tonumber(ARGV[2])
        and (seq > tail or (seq > gone and #redis.call('XRANGE', KEYS[2], ARGV[i], ARGV[i]) == 0)) then
        local time = redis.call('TIME')
        local beyond = math.max(tail, seq, time[1] * 1000000 + time[2]) + 1
        beyond = string.format('%.0f', beyond)
        redis.call('HSET', KEYS[3], 't', beyond, 'w', beyond)
        redis.call('PEXPIRE', KEYS[3], ARGV[1])
        return 1
    end
end
return 0
