-- Whether a pod that is flagged provably holds nothing of this queue and runs nothing. ARGV: pod, milliseconds
-- A process that was silent for so many milliseconds is known to be dead.
-- Every process of it must have said so after it had seen this very flag; from then on its claims are refused.
-- Returns: 1 when it is empty
-- A server that lost its data knows of no process until they report again, which they do each second.
local SETTLED = 3000
local pod = ARGV[1]
local flag = redis.call('GET', key('drain:' .. pod))
if not flag or milliseconds() - tonumber(string.match(flag, '%d+$')) < SETTLED then
    return 0
end

local function holds_nothing(worker)
    for _, stream in ipairs({STREAM, RETURNED}) do
        local held = redis.pcall('XPENDING', stream, GROUP, '-', '+', 1, worker)
        if not held.err and #held > 0 then
            return false
        end
    end
    return true
end

local reports = redis.call('HGETALL', key('workers'))
for position = 1, #reports, 2 do
    local worker, text = reports[position], reports[position + 1]
    -- Most reports are of other pods: look before decoding.
    local report = string.find(text, pod, 1, true) and cjson.decode(text)
    if report and report.pod == pod then
        local beat = tonumber(redis.call('ZSCORE', key('beats'), worker) or milliseconds())
        local is_dead = milliseconds() - beat > tonumber(ARGV[2])
        local is_idle = report.drain == flag and #report.running == 0 and report.claiming == 0
        if not is_dead and not (is_idle and holds_nothing(worker)) then
            return 0
        end
    end
end
return 1
