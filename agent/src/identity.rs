//! stub
use holdfast_wire::id::DeviceId;
use std::path::Path;
/// stub
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct IdentityError;
/// stub
#[derive(Debug)]
pub struct Identity;
impl Identity {
    /// stub
    pub fn load(_d: &Path, _id: Option<DeviceId>) -> Result<Self, IdentityError> {
        Ok(Self)
    }
}
