-- Takes what a ticket is for; nobody gets it again.
-- KEYS  1 ticket
-- Says  {what it is for} | {} if there is none
local held = redis.call('GET', KEYS[1])
if not held then
    return {}
end
redis.call('DEL', KEYS[1])
return { held }
