-- Takes a request on that is to be acted upon once, unless somebody has.
-- KEYS  1 its record
-- ARGV  1 hash of its body, 2 token of who takes it on, 3 their incarnation, 4 when it is over by Redis' clock,
--       5 ms the record stays
-- Says  {body, token, until, outcome or ''} as they stand in the record now; the caller's own token means: taken on
local was = redis.call('HMGET', KEYS[1], 'body', 'token', 'until', 'outcome')
if was[1] then
    return { was[1], was[2] or '', was[3] or '', was[4] or '' }
end
redis.call('HSET', KEYS[1], 'body', ARGV[1], 'token', ARGV[2], 'asker', ARGV[3], 'until', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return { ARGV[1], ARGV[2], ARGV[4], '' }
