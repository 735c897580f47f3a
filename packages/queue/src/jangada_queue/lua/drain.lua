-- flags allow-oom
-- Ask a pod to claim nothing, or go on asking.
-- ARGV: pod, token of whoever asks, milliseconds that it lasts, the flag of the pod's other queues ('' for the first)
-- Returns: the flag, which says since when it stands
local name = key('drain:' .. ARGV[1])
local flag = ARGV[4] ~= '' and ARGV[4] or redis.call('GET', name)
if not flag or string.match(flag, '^[^:]*') ~= ARGV[2] then
    flag = string.format('%s:%.0f', ARGV[2], milliseconds())
end
redis.call('SET', name, flag, 'PX', ARGV[3])
return flag
