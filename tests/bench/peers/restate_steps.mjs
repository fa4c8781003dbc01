// Durable steps in Restate: `ctx.run` journals each result. Serves the endpoint until it is killed.

// The SDK wants this of Node 22; Node 20 does not have it.
Promise.withResolvers ??= function () {
  let resolve, reject;
  const promise = new this((yes, no) => ([resolve, reject] = [yes, no]));
  return { promise, resolve, reject };
};

const restate = await import("@restatedev/restate-sdk");

const steps = restate.service({
  name: "steps",
  handlers: {
    run: async (ctx, count) => {
      for (let n = 0; n < count; n++) await ctx.run(`step ${n}`, () => n);
      return count;
    },
  },
});

await restate.serve({ services: [steps], port: Number(process.argv[2]) });
