-- A service with a rate limit that fails now and then, in the single worker of nginx.
--
-- A bucket of tokens is full at the first call and fills at the allowed rate. A call that finds no token is refused
-- (429). Some of the admitted calls get a 500, and some do their work and get no response. The id, and how often it has
-- been admitted, determine which ones, so every client gets the same faults.

local limit = {}

local settings
local began, filled_at, tokens
local answered = {}
local let_through = {}
local bins = { goodput = {}, refused = {}, failed = {}, lost = {}, needless = {} }

function limit.start(given)
  settings = given
  tokens = given.burst
end

-- Number of calls allowed in the first seconds, without the burst.
local function allowed(seconds)
  local sum = 0
  for index, step in ipairs(settings.steps) do
    local next_step = settings.steps[index + 1]
    local until_then = math.min(seconds, next_step and next_step[1] or math.huge)
    if until_then > step[1] then
      sum = sum + (until_then - step[1]) * step[2]
    end
  end
  return sum
end

local function count(kind, seconds)
  local bin = math.floor(seconds / settings.bin) + 1
  bins[kind][bin] = (bins[kind][bin] or 0) + 1
end

local function finish(status, body)
  ngx.status = status
  ngx.header.content_type = "application/json"
  ngx.header.content_length = #body
  ngx.print(body)
  return ngx.exit(status)
end

-- Limit._chance computes the same in Python.
local function chance(id, attempt)
  return tonumber(string.sub(ngx.md5(settings.seed .. ":" .. id .. ":" .. attempt), 1, 8), 16) / 2 ^ 32
end

function limit.cancel(id)
  if settings.latency > 0 then
    ngx.sleep(settings.latency / 2)
  end
  ngx.update_time()
  local now = ngx.now()
  began = began or now
  filled_at = filled_at or now
  tokens = math.min(settings.burst, tokens + allowed(now - began) - allowed(filled_at - began))
  filled_at = now
  local verdict
  if tokens < 1 then
    count("refused", now - began)
    verdict = "refused"
  else
    tokens = tokens - 1
    let_through[id] = (let_through[id] or 0) + 1
    local drawn = chance(id, let_through[id])
    if drawn < settings.failing then
      count("failed", now - began)
      verdict = "failed"
    else
      verdict = drawn < settings.failing + settings.losing and "lost" or "answered"
      local kind = verdict == "lost" and "lost" or answered[id] and "needless" or "goodput"
      count(kind, now - began)
      answered[id] = verdict == "answered" or answered[id]
    end
  end
  if settings.latency > 0 then
    ngx.sleep(settings.latency / 2)
  end
  if verdict == "refused" then
    if settings.retry_after then
      ngx.header.retry_after = settings.retry_after
    end
    return finish(429, '{"error":{"message":"too many requests","type":"rate_limit","param":null,"code":null}}')
  elseif verdict == "failed" then
    return finish(500, '{"error":{"message":"internal error","type":"server_error","param":null,"code":null}}')
  elseif verdict == "lost" then
    return ngx.exit(444) -- nginx's code for closing the connection
  end
  return finish(200, (string.gsub(settings.job, "$1", id, 1)))
end

local function listed(kind)
  local figures, last = {}, 0
  for bin in pairs(bins[kind]) do
    last = math.max(last, bin)
  end
  for bin = 1, last do
    figures[bin] = bins[kind][bin] or 0
  end
  return '"' .. kind .. '":[' .. table.concat(figures, ",") .. "]"
end

-- Counts for each bin of time since the first call.
function limit.counts()
  local kinds = {}
  for kind in pairs(bins) do
    kinds[#kinds + 1] = listed(kind)
  end
  return finish(200, "{" .. table.concat(kinds, ",") .. "}")
end

return limit
