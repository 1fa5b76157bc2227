-- Logs events of one partition, in order.
-- KEYS  1 the log of events
-- ARGV  1 how many it holds, 2 for how many ms it stays, 3.. the events
-- Says  for each: its id, and how many older ones went for it
local said = {}
for i = 3, #ARGV do
    said[#said + 1], said[#said + 2] = log_event(KEYS[1], ARGV[1], ARGV[2], ARGV[i])
end
return said
