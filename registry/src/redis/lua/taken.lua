-- Takes out of a group's mail what was logged for a socket.
-- KEYS  1 mail, 2 mailed
-- ARGV  1 id of the socket, 2 position after the last that was logged
-- Says  1, or 0 if another socket is taking it
if redis.call('HGET', KEYS[2], 'by') ~= ARGV[1] then
    return 0
end
redis.call('XTRIM', KEYS[1], 'MINID', ARGV[2])
if redis.call('XLEN', KEYS[1]) == 0 then
    -- Its end stays, so that positions grow.
    redis.call('HDEL', KEYS[2], 'by')
end
return 1
