// The load test that `rekindle` runs with k6 unless it is given another script: each virtual user asks for one URL,
// so and so often. All settings come from the environment, and nothing is imported from the internet.
import http from "k6/http";
import { check } from "k6";

// The worker finds the summary in the runner's log between these two lines, as one line.
const BEGIN = "---rekindle-summary-begin---";
const END = "---rekindle-summary-end---";

function text(name) {
  const value = __ENV[name];
  if (!value) {
    throw new Error(`the environment variable ${name} is not set`);
  }
  return value;
}

function number(name) {
  const value = Number(text(name));
  if (!Number.isFinite(value) || value < 0) {
    throw new Error(`the environment variable ${name} is not a number`);
  }
  return value;
}

const TARGET = text("TARGET");

export const options = {
  scenarios: {
    load: {
      executor: "per-vu-iterations",
      vus: number("VUS"),
      iterations: number("ITERATIONS"),
      maxDuration: text("MAX_DURATION"),
    },
  },
  // Nobody looks at the bodies, and with many users they cost more memory than everything else.
  discardResponseBodies: true,
  thresholds: {
    http_req_duration: [`p(95)<=${number("P95_MS")}`],
    http_req_failed: [`rate<=${number("ERROR_RATE")}`],
    checks: [`rate>=${number("CHECKS")}`],
  },
  summaryTrendStats: ["min", "avg", "med", "p(90)", "p(95)", "max", "count"],
};

// Only 200 is an answer: what leads elsewhere, or asks for a password, is not the application.
http.setResponseCallback(http.expectedStatuses(200));

export default function () {
  // The URL has the domain in it, so it is no tag.
  const answer = http.get(TARGET, { redirects: 0, tags: { name: "target" } });
  check(answer, { "the answer is 200": (it) => it.status === 200 });
}

export function handleSummary(data) {
  return { stdout: `\n${BEGIN}\n${JSON.stringify(data)}\n${END}\n` };
}
