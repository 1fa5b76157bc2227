-- Sends a letter to an instance: rings its bell with the letter attached, and keeps it in the mailbox.
-- What nobody hears is not kept, so that it may go elsewhere.
-- KEYS  1 lease, 2 mail, 3 bell, 4 where a large letter lies meanwhile, if it is one
-- ARGV  1 PUBLISH or SPUBLISH, 2 letter, or a line that names where it lies, 3 the large letter or '',
--       4 ms the mail holds, 5 letters kept at most
-- Says  {'gone'} | {'deaf'} | {'ok'} | {'ok', a key of a foreign type that was left alone}
local large = ARGV[3] ~= ''
if large then
    redis.call('SET', KEYS[4], ARGV[3], 'PX', ARGV[4])
end
-- Counted before it is rung: a server without memory refuses here, when nobody has heard it yet. One step
-- instead of a look and a step: a lease counts from a time on, so whoever counts to 1 has found none.
local n = redis.call('HINCRBY', KEYS[1], 'n', '1')
local word
if n == 1 then
    redis.call('HDEL', KEYS[1], 'n')
    word = 'gone'
else
    n = string.format('%.0f', n)
    if redis.call(ARGV[1], KEYS[3], n .. '\n' .. ARGV[2]) == 0 then
        redis.call('HINCRBY', KEYS[1], 'n', '-1')
        word = 'deaf'
    end
end
if word then
    if large then
        redis.call('DEL', KEYS[4])
    end
    return { word }
end
local kept = redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], n .. '-0', 'm', ARGV[2])
if type(kept) == 'table' and kept.err then
    -- The mailbox of an earlier count, or a key of somebody else's: this letter is on the bell all the same.
    return { 'ok', KEYS[2] }
end
return { 'ok' }
