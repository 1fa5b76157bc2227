-- Takes out of a group's mail what was logged for a socket.
-- KEYS  1 mail, 2 mailed
-- ARGV  1 id of the socket, 2 position up to which it was logged, 3 the next one
-- Says  1, or 0 if another socket is taking it
if redis.call('HGET', KEYS[2], 'by') ~= ARGV[1] then
    return 0
end
local last = redis.call('XREVRANGE', KEYS[1], ARGV[2], '-', 'COUNT', 1)[1]
if last then
    redis.call('XTRIM', KEYS[1], 'MINID', ARGV[3])
    redis.call('HSET', KEYS[2], 'b', last[2][8])
end
if redis.call('XLEN', KEYS[1]) == 0 then
    -- Its end stays, so that positions grow.
    redis.call('HDEL', KEYS[2], 'by')
end
return 1
