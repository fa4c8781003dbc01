//! The RabbitMQ queue over RabbitMQ 4, which counts deliveries and bounds messages in other ways.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod queue_broker;

const RELEASE: queue_broker::Release = queue_broker::Release {
    shared: "AMQP_URL_TEST_4",
    version: "4.",
    script: "4",
};
