//! Tonic's own generator as a protoc plugin: reads a request on standard input, writes the
//! generated files on standard output.

use std::error::Error;
use std::io::{Read, Write};
use std::{env, fs, io, process};

use prost::Message;
use prost_types::FileDescriptorSet;
use prost_types::compiler::code_generator_response::{Feature, File};
use prost_types::compiler::{CodeGeneratorRequest, CodeGeneratorResponse};

fn main() -> Result<(), Box<dyn Error>> {
    let mut input = Vec::new();
    io::stdin().read_to_end(&mut input)?;
    let request = CodeGeneratorRequest::decode(input.as_slice())?;
    let response = CodeGeneratorResponse {
        file: generate(request)?,
        supported_features: Some(Feature::Proto3Optional as u64),
        ..Default::default()
    };
    io::stdout().write_all(&response.encode_to_vec())?;
    Ok(())
}

fn generate(request: CodeGeneratorRequest) -> Result<Vec<File>, Box<dyn Error>> {
    let files = FileDescriptorSet {
        file: request.proto_file,
    };
    // The client's own tests serve the data plane; its users have no use for a server.
    let mut made = run(files.clone(), true)?;
    made.retain(|file| file.name() == "trunkline.v1.rs");
    made.extend(run(files, false)?.into_iter().filter(|file| {
        // What the contract imports is not its own.
        file.name().starts_with("trunkline.") && file.name() != "trunkline.v1.rs"
    }));
    Ok(made)
}

fn run(files: FileDescriptorSet, server: bool) -> Result<Vec<File>, Box<dyn Error>> {
    // The generator writes files: a folder of this process' own takes them.
    let folder = env::temp_dir().join(format!("trunkline-codegen-{}", process::id()));
    fs::create_dir(&folder)?;
    let built = tonic_prost_build::configure()
        .build_server(server)
        .server_mod_attribute(".", "#[cfg(test)]")
        .generate_default_stubs(true)
        .build_transport(false)
        .out_dir(&folder)
        .compile_fds(files);
    let read = built.and_then(|()| read_all(&folder));
    fs::remove_dir_all(&folder)?;
    Ok(read?)
}

fn read_all(folder: &std::path::Path) -> io::Result<Vec<File>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        files.push(File {
            name: entry.file_name().into_string().ok(),
            content: Some(fs::read_to_string(entry.path())?),
            ..Default::default()
        });
    }
    files.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(files)
}
