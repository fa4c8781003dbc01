//! The RabbitMQ queue over the machine's own RabbitMQ, which is 3.10 on Debian bookworm.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod queue_broker;

const RELEASE: queue_broker::Release = queue_broker::Release {
    shared: "AMQP_URL_TEST",
    version: "",
    script: "",
};
