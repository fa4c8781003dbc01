//! The project itself, its key pairs and its images.

use jiff::Timestamp;
use reqwest::Method;
use serde_json::json;

use super::call::Call;
use super::client::Clo;
use super::error::CloError;
use super::model::{Image, Keypair, Project};

impl Clo {
    /// The project. Shows that the token works and that the project is in good standing.
    pub async fn project_detail(&self) -> Result<Project, CloError> {
        let path = format!("/v2/projects/{}/detail", self.project());
        self.result(Call::new(
            Method::GET,
            format!("read project {}", self.project()),
            path,
        ))
        .await
    }

    /// The cloud's clock, to the second, where its answers tell the time. Ours says nothing about when
    /// the cloud made something.
    pub async fn clock(&self) -> Result<Option<Timestamp>, CloError> {
        let path = format!("/v2/projects/{}/detail", self.project());
        self.answered_at(Call::new(Method::GET, "read the cloud's clock", path))
            .await
    }

    /// All key pairs of the project.
    pub async fn list_keypairs(&self) -> Result<Vec<Keypair>, CloError> {
        self.list(
            "list key pairs",
            &format!("/v2/projects/{}/keypairs", self.project()),
        )
        .await
    }

    /// Registers a public key (OpenSSH line) and returns its id. Look for the name first.
    pub async fn create_keypair(&self, name: &str, public_key: &str) -> Result<String, CloError> {
        let path = format!("/v2/projects/{}/keypairs", self.project());
        let body = json!({ "name": name, "public_key": public_key });
        self.created(Call::new(Method::POST, format!("create key pair {name}"), path).json(&body))
            .await
    }

    /// All images that servers of the project can be made from.
    pub async fn list_images(&self) -> Result<Vec<Image>, CloError> {
        self.list(
            "list images",
            &format!("/v2/projects/{}/images", self.project()),
        )
        .await
    }
}
