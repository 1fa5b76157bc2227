-- Declares an incarnation dead, for good: from here on it neither beats nor is written to.
-- KEYS  1 lease, 2 tomb, 3 mail
-- ARGV  1 the incarnation, 2 ms the tomb stands
-- Says  1, or 0 if the lease is there after all
if redis.call('EXISTS', KEYS[1]) == 1 then
    return 0
end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
redis.call('DEL', KEYS[3])
return 1
