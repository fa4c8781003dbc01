//! The calls that we make, one function each. Every one has a time limit; the SDK repeats what
//! fails for a moment, which is harmless: a message may be there twice, all else is idempotent.
//! Only receiving and hiding are not repeated here: those who call them go on anyhow.

use std::collections::HashMap;
use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, retry::RetryConfig};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::{
    Message, MessageAttributeValue, MessageSystemAttributeName, QueueAttributeName,
};

use super::config::Settings;
use super::envelope::Letter;
use super::errors::{Failed, classify};
use crate::store::Credentials;

/// Tries of one call, the first included.
const TRIES: u32 = 3;

pub(super) type Attributes = HashMap<QueueAttributeName, String>;

/// A client with its time limits.
#[derive(Debug, Clone)]
pub(super) struct Calls {
    client: Client,
    attempt: Duration,
}

impl Calls {
    /// Connects to nothing yet.
    pub(super) async fn new(settings: &Settings) -> Calls {
        let loader = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(settings.region.clone()))
            .timeout_config(limits(settings.timeout))
            .retry_config(RetryConfig::standard().with_max_attempts(TRIES));
        let loader = match &settings.credentials {
            Credentials::Keys { access, secret } => {
                let keys = aws_sdk_sqs::config::Credentials::new(
                    access,
                    secret.reveal(),
                    None,
                    None,
                    "rekindle",
                );
                loader.credentials_provider(keys)
            }
            Credentials::Aws => loader,
        };
        let shared = loader.load().await;
        let mut builder = aws_sdk_sqs::config::Builder::from(&shared);
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        Calls {
            client: Client::from_conf(builder.build()),
            attempt: settings.timeout,
        }
    }

    /// The URL of a queue.
    pub(super) async fn url(&self, name: &str) -> Result<String, Failed> {
        let call = self.client.get_queue_url().queue_name(name);
        let found = self.done(call.send().await)?;
        Ok(found.queue_url.unwrap_or_default())
    }

    /// Makes a queue; one with the same attributes may be there.
    pub(super) async fn create(&self, name: &str, wanted: Attributes) -> Result<String, Failed> {
        let call = self.client.create_queue().queue_name(name);
        let made = self.done(call.set_attributes(Some(wanted)).send().await)?;
        Ok(made.queue_url.unwrap_or_default())
    }

    /// All attributes of a queue.
    pub(super) async fn attributes(&self, url: &str) -> Result<Attributes, Failed> {
        let call = self.client.get_queue_attributes().queue_url(url);
        let call = call.attribute_names(QueueAttributeName::All);
        Ok(self.done(call.send().await)?.attributes.unwrap_or_default())
    }

    /// Changes these attributes of a queue.
    pub(super) async fn set(&self, url: &str, wanted: Attributes) -> Result<(), Failed> {
        let call = self.client.set_queue_attributes().queue_url(url);
        let call = call.set_attributes(Some(wanted));
        self.done(call.send().await).map(|_| ())
    }

    /// Sends a message, to be seen after `delay`.
    pub(super) async fn send(
        &self,
        url: &str,
        letter: &Letter,
        delay: Duration,
    ) -> Result<(), Failed> {
        let mut call = self.client.send_message().queue_url(url);
        for (name, value) in &letter.attributes {
            call = call.message_attributes(*name, text(value)?);
        }
        let call = call.message_body(&letter.text).delay_seconds(whole(delay));
        self.done(call.send().await).map(|_| ())
    }

    /// Takes up to `most` messages (SQS: 10), hidden from others for `visibility`; waits `wait` for
    /// the first.
    pub(super) async fn receive(
        &self,
        url: &str,
        most: usize,
        visibility: Duration,
        wait: Duration,
    ) -> Result<Vec<Message>, Failed> {
        let call = self.client.receive_message().queue_url(url);
        let call = call
            .max_number_of_messages(i32::try_from(most).unwrap_or(i32::MAX))
            .visibility_timeout(whole(visibility))
            .wait_time_seconds(whole(wait))
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .message_attribute_names("All")
            .customize()
            .config_override(once(self.attempt + wait));
        let received = self.done(call.send().await)?;
        Ok(received.messages.unwrap_or_default())
    }

    /// Removes all messages of a queue, within a minute.
    pub(super) async fn purge(&self, url: &str) -> Result<(), Failed> {
        let call = self.client.purge_queue().queue_url(url);
        self.done(call.send().await).map(|_| ())
    }

    /// Removes a message that we received.
    pub(super) async fn delete(&self, url: &str, receipt: &str) -> Result<(), Failed> {
        let call = self.client.delete_message().queue_url(url);
        self.done(call.receipt_handle(receipt).send().await)
            .map(|_| ())
    }

    /// Hides a message that we received for so long from now; zero gives it back.
    pub(super) async fn hide(
        &self,
        url: &str,
        receipt: &str,
        time: Duration,
    ) -> Result<(), Failed> {
        let call = self.client.change_message_visibility().queue_url(url);
        let call = call
            .receipt_handle(receipt)
            .visibility_timeout(whole(time))
            .customize()
            .config_override(once(self.attempt));
        self.done(call.send().await).map(|_| ())
    }

    fn done<T, E>(&self, result: Result<T, SdkError<E>>) -> Result<T, Failed>
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        result.map_err(|error| classify(error, self.attempt))
    }
}

/// An attempt may take this long, all attempts with the pauses between them little more than all
/// of them together.
fn limits(attempt: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(attempt.min(Duration::from_secs(5)))
        .operation_attempt_timeout(attempt)
        .operation_timeout(attempt * TRIES)
        .build()
}

/// For a call that is not repeated.
fn once(attempt: Duration) -> aws_sdk_sqs::config::Builder {
    aws_sdk_sqs::config::Config::builder()
        .timeout_config(limits(attempt))
        .retry_config(RetryConfig::disabled())
}

fn text(value: &str) -> Result<MessageAttributeValue, Failed> {
    let built = MessageAttributeValue::builder()
        .data_type("String")
        .string_value(value)
        .build();
    built.map_err(|error: BuildError| {
        classify::<aws_sdk_sqs::operation::send_message::SendMessageError>(
            SdkError::construction_failure(error),
            Duration::ZERO,
        )
    })
}

fn whole(time: Duration) -> i32 {
    i32::try_from(time.as_secs()).unwrap_or(i32::MAX)
}
